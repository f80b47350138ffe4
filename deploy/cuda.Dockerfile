# syntax=docker/dockerfile:1
# medseg_gym on NVIDIA GPUs. From the root of a checkout:
#     docker build -f deploy/cuda.Dockerfile -t medseg-gym:cuda .
#     docker run --rm --gpus all -v "$PWD":/work medseg-gym:cuda doctor
# torch's builds bring CUDA along; the driver is the host's, mounted by NVIDIA's container toolkit.
FROM python:3.12-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps -w /dist .

FROM python:3.12-slim-bookworm
ARG EXTRAS=sam2,sb3,rllib,llm,data,serve,serve-ray
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build /dist /dist
RUN wheel=$(echo /dist/*.whl) \
    && pip install --no-cache-dir "medseg-gym[$EXTRAS] @ file://$wheel" \
    && rm -r /dist \
    && useradd --create-home --uid 10001 medseg \
    && install -d -o medseg /work
USER 10001
WORKDIR /work
ENTRYPOINT ["medseg"]
CMD ["--help"]
