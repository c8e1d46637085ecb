# What the pods of `rotacheck run --on kubernetes` run: an image with what an Envoy needs, rotacheck, and Envoys in its cache.
ARG ROTACHECK
ARG ENVOY
FROM ${ROTACHECK} AS rotacheck
FROM ${ENVOY}
COPY --from=rotacheck /rotacheck /usr/local/bin/rotacheck
COPY cache /var/cache/rotacheck
ENV ROTACHECK_CACHE=/var/cache/rotacheck
ENTRYPOINT ["rotacheck"]
