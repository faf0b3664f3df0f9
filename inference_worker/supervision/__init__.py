"""The processes of a host: placed, started, watched, restarted, drained; and what Redis knows of them."""
