"""A `Dataset` straight from WebShop's own files, by path.

The files are imported (`importer`) into a temporary folder, so this shop and the stored one are
made by the same code and equal; what is here is for files small enough to import at each start.
"""

import tempfile

from eef_jax.envs.webshop import importer, stored
from eef_jax.envs.webshop.dataset import Dataset
from eef_jax.envs.webshop.importer import Sources
from eef_jax.envs.webshop.splits import SplitPlan
from eef_jax.errors import ConfigError


def check_sources(data_dir: str, sources: Sources, plan: SplitPlan) -> None:
    """Refuse arguments of `make` that do not go together.

    Raises:
        ConfigError: saying which.
    """
    given = (
        sources.products or sources.attributes or sources.human_instructions or sources.title_nouns
    )
    if data_dir and (given or sources.max_products):
        raise ConfigError(
            f"env.data_dir={data_dir!r} is a whole dataset; give either it or env.products, "
            "env.attributes, env.human_instructions, env.title_nouns and env.max_products"
        )
    if given and not (sources.products and sources.attributes):
        raise ConfigError(
            f"env.products={sources.products!r}, env.attributes={sources.attributes!r}: official "
            "files need both, and so do env.human_instructions and env.title_nouns; give none of "
            "them for the embedded catalogue"
        )
    if not (data_dir or given) and (plan.files or plan.kind != "products"):
        raise ConfigError(
            f"env.splits={plan.kind!r} and index files are for official files (env.data_dir); the "
            "embedded catalogue has fixed splits, by product"
        )


def load(sources: Sources, plan: SplitPlan | None = None) -> Dataset:
    """Import official files and open the result.

    Args:
        sources: the files.
        plan: how the goals are split; None: by product, with the sources' seed.

    Raises:
        DataError: a file is missing, damaged, or of another kind; or no goal comes of them.
    """
    with tempfile.TemporaryDirectory(prefix="webshop-", ignore_cleanup_errors=True) as folder:
        importer.import_dataset(sources, folder)
        # Its maps stay readable when the folder is gone.
        return stored.load(folder, plan or SplitPlan(seed=sources.seed))
