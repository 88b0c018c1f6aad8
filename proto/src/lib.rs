//! The gRPC contract of the generation server: the generated types, clients and server traits, and
//! nothing else. The contract itself is `proto/genserver/v1/genserver.proto`.

/// Package `genserver.v1`.
pub mod genserver {
    #[allow(
        clippy::pedantic,
        clippy::allow_attributes_without_reason,
        missing_debug_implementations,
        unreachable_pub,
        reason = "generated code"
    )]
    pub mod v1 {
        tonic::include_proto!("genserver.v1");
    }
}

/// Encoded `FileDescriptorSet` of the contract, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/genserver_descriptors.bin"));
