// Admin calls: which models there are and how they are, adding, removing, loading and pinning them, and
// reading the configuration again.
//
// Whether the caller may is settled before (AccessRules). Any thread; an answer takes as long as the pool's
// catalogue and the file system need for it, so not on the I/O thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "gateway/api_error.h"
#include "gateway/http_message.h"
#include "pool/catalogue.h"
#include "pool/generator.h"
#include "pool/reload.h"

namespace switchyard::gateway {

// What the gateway may change. All of it outlives the gateway.
struct GatewayControls {
  pool::Catalogue* catalogue = nullptr;  // null: there are no admin calls
  pool::Reloader* reloader = nullptr;    // null: the server has no configuration file
  pool::ModelSettings defaults;          // of models that are added, without a reloader
};

// A model from a POST's body: the keys of a configuration's entry, the path absolute and of a checkpoint that
// can be read. Errors: 400, naming the field.
ApiResult<pool::ModelSettings> parse_model(std::string_view body, const pool::ModelSettings& defaults);

class AdminApi {
 public:
  explicit AdminApi(GatewayControls controls) : controls_(std::move(controls)) {}
  bool open() const { return controls_.catalogue != nullptr; }

  // `request.head.path` begins with "/admin/". `models`: as the gateway sees them.
  HttpResponse answer(const HttpRequest& request, const std::vector<pool::ServedModel>& models) const;

 private:
  HttpResponse list(const std::vector<pool::ServedModel>& models) const;
  HttpResponse show(std::string_view id, const std::vector<pool::ServedModel>& models) const;
  HttpResponse add(std::string_view body) const;
  HttpResponse remove(const std::string& id) const;
  HttpResponse act(const std::string& id, std::string_view action) const;
  HttpResponse reload() const;

  GatewayControls controls_;
};

}  // namespace switchyard::gateway
