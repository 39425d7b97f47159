# One image for gNB and UEs: the command says which.
FROM python:3.11-slim AS built

# strips symbols that nobody links against any more: 117 MB of torch and llvmlite
RUN apt-get update && apt-get install -y --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/csiemu
ENV PATH=/opt/csiemu/bin:$PATH
WORKDIR /build

# dependencies first: they change less often than the code
COPY constraints.txt pyproject.toml ./
ARG TORCH_INDEX=""
RUN pip install --no-cache-dir --no-compile -c constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch \
    && python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*project['dependencies'], *project['optional-dependencies']['postgres'], sep='\n')" > requirements.txt \
    && pip install --no-cache-dir --no-compile -c constraints.txt -r requirements.txt \
    && cd /opt/csiemu/lib/python3.11/site-packages \
    && rm -rf torch/include torch/test torch/bin/test_* torch/bin/*Test torch/bin/protoc* \
    && find . -type d -name tests -prune -exec rm -rf {} + \
    && find torch/lib llvmlite/binding -name "*.so" -exec strip --strip-unneeded {} +

COPY LICENSE LICENSE
COPY protos protos
COPY shared shared
COPY ue_client ue_client
COPY gnb_server gnb_server
COPY csiemu csiemu
# bytecode of what gNB and UEs import, and of no more: all of it is 250 MB
RUN pip install --no-cache-dir --no-compile --no-deps . \
    && pip uninstall --yes pip \
    && OMP_NUM_THREADS=1 python -P -c "import csiemu.emulate, gnb_server.command, ue_client.command, shared.schemes"


FROM python:3.11-slim

RUN useradd --create-home --uid 10001 csiemu && mkdir /data && chown csiemu /data
COPY --from=built /opt/csiemu /opt/csiemu
# a volume that is mounted here is filled with them when it is new
COPY --chown=csiemu checkpoints /checkpoints

USER csiemu
WORKDIR /home/csiemu
ENV PATH=/opt/csiemu/bin:$PATH CSIEMU_CHECKPOINTS=/checkpoints OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1
# compiled here rather than in every container; -P: as installed, for what is compiled is kept by its path
RUN python -P -c "import shared.channels.compiled.loops, shared.quantizers.loops, shared.schemes.angle_loops"
ENTRYPOINT ["csiemu"]
CMD ["--help"]
