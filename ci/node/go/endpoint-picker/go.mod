// The endpoint picker: the version alone, since it is built inside its own module, by its own go.sum.
module servepath/ci/node/endpoint-picker

go 1.25.0

require sigs.k8s.io/gateway-api-inference-extension v1.5.0
