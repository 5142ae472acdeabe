# An image of one static binary and the public certificate authorities:
#
#   docker build -t tidemark .
#   docker buildx build --platform linux/amd64,linux/arm64 -t registry.example.com/tidemark --push .
#
# `tidemark version` says what .git says, so that has to be in the context: a clone,
# not an archive. With podman or buildah add --format docker, or the health check is
# left out.

# HTTP is spoken with the schema registry and at the admin port; HTTP/2 would bring
# neither anything but 0.6 MB.
#
# The compiler runs on the machine that builds, whatever machine the image is for.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY . .
ARG TARGETOS
ARG TARGETARCH
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -tags nethttpomithttp2 -ldflags="-s -w" -o /out/tidemark ./cmd/tidemark

# Nothing else is needed: time zones are in the binary, and no file is ever written.
FROM scratch
LABEL org.opencontainers.image.title="Tidemark" \
      org.opencontainers.image.description="Event-time order for any Kafka consumer" \
      org.opencontainers.image.source="https://github.com/tidemarkhq/tidemark" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/tidemark /tidemark
# A number: Kubernetes cannot tell from a name that it is not root.
USER 65532:65532
EXPOSE 9840
# Whether the process answers. A Kafka that is away is no reason to restart it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["/tidemark", "check", "--live"]
ENTRYPOINT ["/tidemark"]
