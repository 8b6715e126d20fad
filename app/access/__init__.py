"""Who may do what: API keys, the tenants and roles behind them, and signed addresses."""
