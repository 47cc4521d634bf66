"""HTTP: the contract with buyers, organisers and operators."""
