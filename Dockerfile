# One image for gNB and UEs: the command says which.
FROM python:3.11-slim

RUN useradd --create-home --uid 10001 csiemu
WORKDIR /app

# dependencies first: they change less often than the code
COPY constraints.txt pyproject.toml ./
ARG TORCH_INDEX=""
RUN pip install --no-cache-dir -c constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch \
    && python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
        > /tmp/requirements.txt \
    && pip install --no-cache-dir -c constraints.txt -r /tmp/requirements.txt

COPY LICENSE LICENSE
COPY protos protos
COPY shared shared
COPY ue_client ue_client
COPY gnb_server gnb_server
COPY csiemu csiemu
# what csiemu/checkpoints links to: installed with the package, so found wherever a command runs
COPY checkpoints checkpoints
RUN pip install --no-cache-dir --no-deps . && mkdir /data && chown csiemu /data

USER csiemu
ENV OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1
# compiled here rather than in every container; -P: as installed, for what is compiled is kept by its path
RUN python -P -c "import shared.channels.compiled.loops, shared.quantizers.loops"
ENTRYPOINT ["csiemu"]
CMD ["--help"]
