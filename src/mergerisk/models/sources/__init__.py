"""Where models come from: names, folders, hubs, libraries, modules of one's own → encoders, experts, heads."""
