"""The commands of `fundus-train`, a file each group; `models.training.cli` mounts them."""
