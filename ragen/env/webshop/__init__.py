"""A small text WebShop (needs ``pip install ./external/webshop_minimal``)."""

from ragen.env.webshop.config import WebShopConfig
from ragen.env.webshop.env import WebShopEnv

__all__ = ["WebShopConfig", "WebShopEnv"]
