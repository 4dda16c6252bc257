"""Offline commands: from a catalogue file to a published, measured version."""
