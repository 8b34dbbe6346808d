"""Reading exercises on made-up WebShop pages."""
