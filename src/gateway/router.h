// Routes: which path is answered how, and who may ask.
//
// Owned by the gateway. refuse(), handle() and set_stopping() on the io thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/sha256.h"
#include "gateway/exchange.h"
#include "gateway/gateway.h"
#include "gateway/generation_job.h"
#include "gateway/io_loop.h"
#include "gateway/metrics.h"
#include "gateway/model_table.h"
#include "gateway/worker.h"

namespace switchyard::gateway {

// Keys are kept and compared as SHA-256 digests, all of them, in time that does not depend on where they
// differ.
class ApiKeys {
 public:
  explicit ApiKeys(const std::vector<std::string>& keys);
  // `authorization`: the header's value, "Bearer KEY".
  bool allow(std::string_view authorization) const;

 private:
  std::vector<Sha256Digest> digests_;
};

struct RouterServices {
  pool::Generator* generator = nullptr;
  Metrics* metrics = nullptr;
  std::shared_ptr<IoLoop> loop;
  Worker* worker = nullptr;
};

class Router final : public RequestHandler {
 public:
  Router(const GatewayOptions& options, const RouterServices& services, ModelTable models);

  std::optional<HttpResponse> refuse(const HttpHead& head) override;
  void handle(HttpRequest request, const std::shared_ptr<Exchange>& exchange) override;
  std::string_view route_name(std::string_view path) const override;
  // /health says so from now on.
  void set_stopping() { stopping_ = true; }

 private:
  using Prepare = Preparation (*)(std::string_view body, const ModelTable& models,
                                  const RequestLimits& limits);

  void generate(Prepare prepare, std::string body, const std::shared_ptr<Exchange>& exchange);
  void answer_later(const std::shared_ptr<Exchange>& exchange, std::function<HttpResponse()> make);
  HttpResponse list_models() const;
  HttpResponse show_model(std::string_view id) const;

  JobServices job_services_;
  RouterServices services_;
  ModelTable models_;
  ApiKeys keys_;
  RequestLimits limits_;
  bool stopping_ = false;
};

}  // namespace switchyard::gateway
