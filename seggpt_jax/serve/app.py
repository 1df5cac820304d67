"""The server's application: routes, the gate before them, and errors, and the page."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import FileResponse, JSONResponse
from starlette.staticfiles import StaticFiles

from seggpt_jax.inference import Predictor
from seggpt_jax.serve import api
from seggpt_jax.serve.gate import Gate, Limits
from seggpt_jax.serve.label_studio import routes
from seggpt_jax.serve.label_studio.backend import Backend, Settings
from seggpt_jax.serve.service import Service

PAGE = Path(__file__).parent / "page"


def make_app(
    predictor: Predictor,
    model: str,
    limits: Limits,
    token: str = "",
    label_studio: Settings | None = None,
) -> FastAPI:
    """The application for a predictor. model: its name, for clients. token: what
    requests must carry; empty for a server that only its own machine reaches."""

    folders = label_studio or Settings()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.service = service = Service(predictor, limits)
        app.state.label_studio = Backend(service, model, folders)
        yield
        service.close()

    app = FastAPI(title="seggpt", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.model = model
    app.include_router(api.router)
    app.include_router(routes.router)
    app.add_exception_handler(RequestValidationError, _say_what_is_missing)
    app.add_exception_handler(Exception, _say_that_it_failed)
    app.add_middleware(
        Gate, limits=limits, token=token, pace=lambda: app.state.service.worker.pace
    )
    app.add_api_route("/docs", _docs, include_in_schema=False)
    app.mount("/", StaticFiles(directory=PAGE, html=True))
    return app


async def _docs() -> FileResponse:
    return FileResponse(PAGE / "docs.html")


async def _say_what_is_missing(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = [
        f"{'.'.join(map(str, fault['loc'][1:])) or 'the form'}: {fault['msg']}"
        + ('; {"1": "cat"} is wanted' if fault["loc"][1:] == ("names",) else "")
        for fault in error.errors()
    ]
    return JSONResponse({"detail": "; ".join(faults)}, 422)


async def _say_that_it_failed(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": f"the server failed: {type(error).__name__}"}, 500)
