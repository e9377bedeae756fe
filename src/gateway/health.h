// GET /health: can requests be sent here, and how is every instance and every model?
//
// Pure; any thread.
#pragma once

#include <vector>

#include "gateway/http_message.h"
#include "pool/generator.h"

namespace switchyard::gateway {

// 200 as long as a model is ready and there are instances to serve it (a unified one, or one for prefill and
// one for decode): whoever balances load is to take a server away that can do nothing, not one of whose
// models or instances some have failed; for those requests wait, or are told so. Else 503. `status` is "ok"
// only when all instances and all models are ready, else "degraded", "unavailable" or "stopping". The body
// tells about each either way.
HttpResponse health_response(const std::vector<pool::InstanceStatus>& instances,
                             const std::vector<pool::ServedModel>& models, bool stopping);

}  // namespace switchyard::gateway
