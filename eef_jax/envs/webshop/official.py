"""A `Dataset` straight from WebShop's own files, by path.

The files are imported (`importer`) into a temporary folder, so this shop and the stored one are
made by the same code and equal; what is here is for files small enough to import at each start.
"""

import tempfile

from eef_jax.envs.webshop import importer, stored
from eef_jax.envs.webshop.dataset import Dataset
from eef_jax.envs.webshop.splits import Plan
from eef_jax.errors import ConfigError


def check(
    data_dir: str,
    products: str,
    attributes: str,
    *,
    human: str,
    nouns: str,
    max_products: int,
    plan: Plan,
) -> None:
    """Refuse arguments of `make` that do not go together.

    Raises:
        ConfigError: saying which.
    """
    if data_dir and (products or attributes or human or nouns or max_products):
        raise ConfigError(
            f"env.data_dir={data_dir!r} is a whole dataset; give either it or env.products, "
            "env.attributes, env.human, env.nouns and env.max_products"
        )
    if bool(products) != bool(attributes) or (not products and (human or nouns)):
        raise ConfigError(
            f"env.products={products!r}, env.attributes={attributes!r}: official files need both, "
            "and so do env.human and env.nouns; give none of them for the embedded catalogue"
        )
    if not (data_dir or products) and (plan.files or plan.kind != "products"):
        raise ConfigError(
            f"env.splits={plan.kind!r} and index files are for official files (env.data_dir); the "
            "embedded catalogue has splits of its own, by product"
        )


def load(
    *,
    products: str,
    attributes: str,
    human: str = "",
    nouns: str = "",
    seed: int = 0,
    max_products: int = 0,
    plan: Plan | None = None,
) -> Dataset:
    """Import official files and open the result; arguments are `importer.run`'s.

    Args:
        products: path of the products.
        attributes: path of their attributes and instructions.
        human: path of human instructions.
        nouns: path of title nouns.
        seed: decides hidden prices and price bounds.
        max_products: only look at this many first rows of the products file; 0: all.
        plan: how the goals are split; None: by product, with `seed`.

    Raises:
        DataError: a file is missing, damaged, or of another kind; or no goal comes of them.
    """
    with tempfile.TemporaryDirectory(prefix="webshop-", ignore_cleanup_errors=True) as folder:
        importer.run(
            products=products,
            attributes=attributes,
            human=human,
            nouns=nouns,
            seed=seed,
            max_products=max_products,
            out=folder,
        )
        # Its maps stay readable when the folder is gone.
        return stored.load(folder, plan or Plan(seed=seed))
