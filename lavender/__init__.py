"""LAVENDER rebuilt: unified video-language understanding as masked language modelling."""
