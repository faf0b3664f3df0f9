"""Who asks: API keys, the tenants that they belong to, and what each may do. Knows no HTTP and no gRPC."""
