"""One module per data set: raw files in, model-ready volumes and `datalist.json` out."""
