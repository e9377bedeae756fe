// Routes: which path is answered how, and who may ask.
//
// Owned by the gateway. refuse(), handle() and set_stopping() on the io thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/admin.h"
#include "gateway/api_keys.h"
#include "gateway/exchange.h"
#include "gateway/gateway.h"
#include "gateway/generation_job.h"
#include "gateway/io_loop.h"
#include "gateway/metrics.h"
#include "gateway/model_table.h"
#include "gateway/worker.h"

namespace switchyard::gateway {

struct RouterServices {
  pool::Generator* generator = nullptr;
  Metrics* metrics = nullptr;
  std::shared_ptr<IoLoop> loop;
  Worker* worker = nullptr;
  Worker* admin_worker = nullptr;  // for calls that look at files, which may take their time
  ModelDirectory* models = nullptr;
  const AdminApi* admin = nullptr;
};

class Router final : public RequestHandler {
 public:
  Router(const GatewayOptions& options, const RouterServices& services);

  std::optional<HttpResponse> refuse(const HttpHead& head) override;
  void handle(HttpRequest request, const std::shared_ptr<Exchange>& exchange) override;
  std::string_view route_name(std::string_view path) const override;
  // /health says so from now on.
  void set_stopping() { stopping_ = true; }

 private:
  using Prepare = Preparation (*)(std::string_view body, const ModelTable& models,
                                  const RequestLimits& limits);

  void generate(Prepare prepare, HttpRequest request, const std::shared_ptr<Exchange>& exchange);
  void answer_later(Worker& worker, const std::shared_ptr<Exchange>& exchange,
                    std::function<HttpResponse()> make);

  JobServices job_services_;
  RouterServices services_;
  AccessRules access_;
  RequestLimits limits_;
  bool stopping_ = false;
};

}  // namespace switchyard::gateway
