# syntax=docker/dockerfile:1
# medseg_gym on CPUs. From the root of a checkout:
#     docker build -f deploy/cpu.Dockerfile -t medseg-gym:cpu .
#     docker run --rm -v "$PWD":/work medseg-gym:cpu demo
# The usual builds of torch bring CUDA along (gigabytes); --build-arg TORCH_INDEX=URL takes torch from an
# index of CPU builds, whose address PyTorch's page of installation gives.
FROM python:3.12-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps -w /dist .

FROM python:3.12-slim-bookworm
ARG EXTRAS=sb3,trajectories,data,serve
ARG TORCH_INDEX=
COPY --from=build /dist /dist
# torch as the index has it: the newest that medseg_gym takes
# hadolint ignore=DL3013
RUN if [ -n "$TORCH_INDEX" ]; then \
        pip install --no-cache-dir --index-url "$TORCH_INDEX" "torch>=2.4" torchvision; \
    fi \
    && wheel=$(echo /dist/*.whl) \
    && pip install --no-cache-dir "medseg-gym[$EXTRAS] @ file://$wheel" \
    && rm -r /dist \
    && useradd --create-home --uid 10001 medseg \
    && install -d -o medseg /work
USER 10001
WORKDIR /work
ENTRYPOINT ["medseg"]
CMD ["--help"]
