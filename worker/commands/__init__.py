"""The commands of `fundus-worker`, a file each; `worker.cli` mounts them."""
