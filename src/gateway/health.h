// GET /health: is every instance, and so every model, ready?
//
// Pure; any thread.
#pragma once

#include <string>
#include <vector>

#include "gateway/http_message.h"
#include "pool/generator.h"

namespace switchyard::gateway {

// 200 when all instances are ready and each model has what it takes (a unified instance, or one for prefill
// and one for decode); else 503. The body tells about each either way.
HttpResponse health_response(const std::vector<pool::InstanceStatus>& instances,
                             const std::vector<std::string>& models, bool stopping);

}  // namespace switchyard::gateway
