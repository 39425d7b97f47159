"""The wire contract: .proto files and the stubs made from them (`make protos`)."""
