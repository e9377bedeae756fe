#include "gateway/gateway.h"

#include <future>
#include <utility>

#include "base/log.h"
#include "gateway/io_loop.h"
#include "gateway/router.h"
#include "gateway/server.h"
#include "gateway/worker.h"

namespace switchyard::gateway {
namespace {

constexpr auto kEndGrace = std::chrono::seconds(2);  // for the last bytes of streams that were ended

class RunningGateway final : public Gateway {
 public:
  RunningGateway(GatewayOptions options, pool::Generator& generator, GatewayControls controls)
      : options_(std::move(options)),
        generator_(generator),
        catalogue_(controls.catalogue),
        admin_(std::move(controls)),
        loop_(std::make_shared<IoLoop>()) {}

  ~RunningGateway() override { stop(monotonic_now()); }

  Status open(const ServedTextFactory& text) {
    models_ = std::make_unique<ModelDirectory>(
        ModelSources{.generator = &generator_, .catalogue = catalogue_, .text = text, .metrics = &metrics_});
    RouterServices services;
    services.generator = &generator_;
    services.metrics = &metrics_;
    services.loop = loop_;
    services.worker = &worker_;
    services.admin_worker = &admin_worker_;
    services.models = models_.get();
    services.admin = &admin_;
    router_ = std::make_unique<Router>(options_, services);
    ConnectionContext context;
    context.options = &options_;
    context.handler = router_.get();
    context.metrics = &metrics_;
    server_ = std::make_unique<Server>(loop_->context(), context);
    if (auto listening = server_->listen(); !listening) return listening;
    port_ = server_->port();
    server_->accept();
    loop_->start();
    log::info("gateway: listening on http://{}:{}", options_.host, port_);
    return {};
  }

  std::uint16_t port() const override { return port_; }

  void stop(TimePoint deadline) override {
    if (std::exchange(stopped_, true)) return;
    if (port_ != 0) {
      // Waited for, so that every connection that was accepted before is counted.
      const auto stopped = std::make_shared<std::promise<void>>();
      auto accepting_ended = stopped->get_future();
      loop_->post([this, stopped] {
        router_->set_stopping();
        server_->stop_accepting();
        stopped->set_value();
      });
      accepting_ended.wait_for(kEndGrace);
      if (!server_->wait_until_empty(deadline)) {
        ApiError error;
        error.status = 503;
        error.message = "The server is shutting down.";
        error.type = "server_error";
        error.code = "shutting_down";
        loop_->post([this, error] { server_->fail_all(error); });
        if (!server_->wait_until_empty(monotonic_now() + kEndGrace)) {
          loop_->post([this] { server_->close_all(); });
          server_->wait_until_empty(monotonic_now() + kEndGrace);
        }
      }
    }
    worker_.shut_down();
    admin_worker_.shut_down();
    loop_->join();
    if (server_) server_->dispose();
    loop_->release();
  }

 private:
  GatewayOptions options_;
  pool::Generator& generator_;
  pool::Catalogue* const catalogue_;
  const AdminApi admin_;
  Metrics metrics_;
  std::unique_ptr<ModelDirectory> models_;
  std::shared_ptr<IoLoop> loop_;
  Worker worker_;
  Worker admin_worker_;
  std::unique_ptr<Router> router_;
  std::unique_ptr<Server> server_;
  std::uint16_t port_ = 0;
  bool stopped_ = false;
};

}  // namespace

Result<std::unique_ptr<Gateway>> Gateway::start(GatewayOptions options, pool::Generator& generator,
                                                GatewayControls controls, const ServedTextFactory& text) {
  auto gateway = std::make_unique<RunningGateway>(std::move(options), generator, std::move(controls));
  if (auto opened = gateway->open(text); !opened) return pass(opened.error());
  return gateway;
}

}  // namespace switchyard::gateway
