"""An operator's side: what goes on in the pools, and what he sets, orders, retries and removes in them."""
