"""Speed and memory of WebShop: catalogues, import and episodes."""
