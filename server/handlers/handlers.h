/* handlers.h -- one function for each row of routes.def, by the name that stands there. */
#ifndef GRADD_SERVER_HANDLERS_H
#define GRADD_SERVER_HANDLERS_H

#include "server/request.h"

#define R(method, path, handler, ...) gs_handler gs_handle_##handler;
#include "server/routes.def"
#undef R

/** What GET /v1/models/{m} shows. */
int gs_reply_model(gs_request *request, int status, gs_hosted *hosted, gp_error *error);

#endif
