# mergerisk on CPUs: docker build -t mergerisk . && docker run --rm -v "$PWD:/work" mergerisk
# The base is pinned to a patch release, and every package by constraints.txt. How it is used: docs/docker.md.
FROM python:3.11.14-slim-trixie AS build
RUN python -m venv /opt/mergerisk
ENV PATH=/opt/mergerisk/bin:$PATH
WORKDIR /source
# PyTorch first, by far the largest: its layer stays while the sources change. +cpu is a build without CUDA.
COPY constraints.txt ./
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu -c constraints.txt torch==2.13.0+cpu
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir -c constraints.txt .

FROM python:3.11.14-slim-trixie
COPY --from=build /opt/mergerisk /opt/mergerisk
# Whoever runs it, with docker run --user too, can write downloads of the hub and fonts' index into $HOME.
RUN useradd --uid 10001 --create-home mergerisk && chmod 1777 /home/mergerisk && mkdir /work && chown mergerisk /work
ENV PATH=/opt/mergerisk/bin:$PATH HOME=/home/mergerisk PYTHONUNBUFFERED=1
USER 10001
WORKDIR /work
ENTRYPOINT ["mergerisk"]
CMD ["run", "starter"]
