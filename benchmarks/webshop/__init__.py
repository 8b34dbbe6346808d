"""WebShop: speed and memory of catalogues, import and episodes."""
