"""Bytes to tensors: TSV files, frames, transforms, annotations, loaders."""
