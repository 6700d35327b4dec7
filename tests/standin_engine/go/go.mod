module servepath.dev/standin-engine

go 1.24
