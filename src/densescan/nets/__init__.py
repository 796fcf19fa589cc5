"""The networks: condition encoder, denoiser, refiner; parameter names are those of the official weights."""
