"""Many machines: which of them runs a session stands in etcd, and changes by compare-and-swap."""
