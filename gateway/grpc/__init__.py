"""The gRPC door: Triton's GRPCInferenceService, health and reflection. Needs the extra `grpc`."""
