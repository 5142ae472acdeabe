// Package deploy has the tests of what Tidemark is deployed with: the image, the
// Kubernetes manifests and the composition with Kafka.
package deploy
