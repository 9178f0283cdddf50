"""Alerts: what is worth one (`rules`), how many go out (`limits`), to whom (`targets`); put together in `desk`."""
