# `advgym serve` in a container; compose.yaml puts PostgreSQL beside it. BASE is any image with Python 3.11 to 3.13 and apt.
ARG BASE=python:3.11-slim
FROM ${BASE}

# The first sandbox of submissions; where the container may not make user namespaces, the second (Landlock) is taken.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bubblewrap \
    && rm -rf /var/lib/apt/lists/*

# TORCH_INDEX: an index of torch builds without CUDA, which spares 3.5 GB of libraries.
ARG TORCH_INDEX=
ARG EXTRAS=all,server
WORKDIR /opt/advgym
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY advgym advgym
COPY agents agents
COPY envs envs
COPY leaderboards leaderboards
RUN if [ -n "$TORCH_INDEX" ]; then \
        pip install --no-cache-dir --index-url "$TORCH_INDEX" $(grep -oE '^(torch|torchaudio)==[^ ;]+' requirements.lock); \
    fi \
    && pip install --no-cache-dir --constraint requirements.lock ".[$EXTRAS]"

RUN useradd --create-home --uid 10001 advgym && mkdir /data && chown advgym /data
USER advgym
WORKDIR /data
VOLUME /data
EXPOSE 8000
ENTRYPOINT ["advgym"]
CMD ["serve", "--host", "0.0.0.0", "--data", "/data"]
