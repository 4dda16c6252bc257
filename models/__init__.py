"""The learning side: encoders, training and export. May import torch (the `train` extra); `app` never imports it.

Flow of an encoder: `fetch_base` lays out a checkpoint folder → `bert` is the network → `export` writes the artefact
(`encoder.onnx`, `tokenizer.json`, `encoder.json`) that a bundle serves → `parity` says what the export lost.
"""
