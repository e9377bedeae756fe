#include "gateway/router.h"

#include <algorithm>
#include <array>
#include <exception>
#include <span>

#include "base/log.h"
#include "gateway/health.h"
#include "gateway/json_writer.h"

namespace switchyard::gateway {
namespace {

// Bodies up to this size are parsed and tokenised on the io thread: about a millisecond.
constexpr std::size_t kInlineBody = 16 * 1024;

struct Route {
  enum class Access { anybody, client, admin };
  std::string_view path;  // a trailing '/' and more: with anything behind it
  std::string_view name;
  std::string_view methods;
  Access access;
};

constexpr std::array<Route, 10> kRoutes{{
    {"/", "root", "GET, HEAD, OPTIONS", Route::Access::anybody},
    {"/health", "health", "GET, HEAD, OPTIONS", Route::Access::anybody},
    {"/metrics", "metrics", "GET, HEAD, OPTIONS", Route::Access::anybody},
    {"/v1/models", "models", "GET, HEAD, OPTIONS", Route::Access::client},
    {"/v1/models/", "model", "GET, HEAD, OPTIONS", Route::Access::client},
    {"/v1/chat/completions", "chat_completions", "POST, OPTIONS", Route::Access::client},
    {"/v1/completions", "completions", "POST, OPTIONS", Route::Access::client},
    {"/admin/models", "admin_models", "GET, HEAD, POST, OPTIONS", Route::Access::admin},
    {"/admin/models/", "admin_model", "GET, HEAD, POST, DELETE, OPTIONS", Route::Access::admin},
    {"/admin/reload", "admin_reload", "POST, OPTIONS", Route::Access::admin},
}};

const Route* find_route(std::string_view path) {
  for (const Route& route : kRoutes) {
    const bool open_ended = route.path.size() > 1 && route.path.back() == '/';
    if (open_ended ? path.size() > route.path.size() && path.starts_with(route.path) : path == route.path) {
      return &route;
    }
  }
  return nullptr;
}

bool allows(const Route& route, std::string_view method) {
  std::string_view methods = route.methods;
  while (!methods.empty()) {
    const auto comma = methods.find(", ");
    if (methods.substr(0, comma) == method) return true;
    methods.remove_prefix(comma == std::string_view::npos ? methods.size() : comma + 2);
  }
  return false;
}

HttpResponse refusal(int status, std::string message, std::string code) {
  ApiError error;
  error.status = status;
  error.message = std::move(message);
  error.code = std::move(code);
  return error_response(error);
}

void write_model(JsonWriter& writer, const ModelEntry& model) {
  writer.begin_object();
  writer.key("id").string(model.served.id).key("object").string("model");
  writer.key("created").integer(model.served.created).key("owned_by").string("switchyard");
  writer.key("max_model_len").integer(model.served.context).end_object();
}

HttpResponse welcome() {
  HttpResponse response;
  JsonWriter writer(response.body);
  writer.begin_object().key("name").string("Switchyard");
  writer.key("about").string("Language models through the OpenAI API.");
  writer.key("routes").begin_array();
  for (const Route& route : kRoutes) {
    if (route.path.size() > 1 && route.path.back() != '/') writer.string(route.path);
  }
  writer.end_array().end_object();
  return response;
}

HttpResponse list_models(const ModelTable& models) {
  HttpResponse response;
  JsonWriter writer(response.body);
  const auto ready = [](const ModelEntry& entry) { return entry.served.state == pool::ModelState::ready; };
  writer.begin_object().key("object").string("list").key("data").begin_array();
  for (const auto& entry : models.all()) {
    if (ready(*entry)) write_model(writer, *entry);
  }
  writer.end_array();
  writer.key("not_ready").begin_array();
  for (const auto& entry : models.all()) {
    if (ready(*entry)) continue;
    writer.begin_object().key("id").string(entry->served.id);
    writer.key("state").string(pool::to_string(entry->served.state));
    writer.key("detail").string(entry->served.detail).end_object();
  }
  writer.end_array().end_object();
  return response;
}

HttpResponse show_model(const ModelTable& models, std::string_view id) {
  const auto model = models.find(id);
  if (!model) return error_response(model.error());
  HttpResponse response;
  JsonWriter writer(response.body);
  write_model(writer, **model);
  return response;
}

}  // namespace

Router::Router(const GatewayOptions& options, const RouterServices& services)
    : services_(services),
      access_(options.api_keys, options.admin_keys, options.host),
      limits_(options.limits) {
  job_services_.generator = services.generator;
  job_services_.metrics = services.metrics;
  job_services_.loop = services.loop;
  job_services_.max_queued_tokens = options.max_queued_tokens;
}

std::string_view Router::route_name(std::string_view path) const {
  const Route* route = find_route(path);
  return route == nullptr ? "none" : route->name;
}

std::optional<HttpResponse> Router::refuse(const HttpHead& head) {
  if (!head.http_1_0 && !head.has_host) {
    return refusal(400, "The request has no Host header.", "invalid_http");
  }
  const Route* route = find_route(head.path);
  if (route != nullptr && route->access == Route::Access::admin && !services_.admin->open()) route = nullptr;
  if (route == nullptr && !(head.method == "OPTIONS" && head.path == "*")) {
    return refusal(404,
                   fmt::format("Unknown request URL: {} {}. GET / lists what is served.",
                               head.method.substr(0, 40), head.path.substr(0, 200)),
                   "unknown_url");
  }
  if (route != nullptr && !allows(*route, head.method)) {
    auto response = refusal(405,
                            fmt::format("Not allowed to {} on {}; allowed: {}.", head.method.substr(0, 40),
                                        head.path.substr(0, 200), route->methods),
                            "method_not_supported");
    response.headers.emplace_back("Allow", std::string(route->methods));
    return response;
  }
  if (head.method == "OPTIONS") {
    HttpResponse response;
    response.status = 204;
    response.content_type.clear();
    response.headers.emplace_back(
        "Allow", route != nullptr ? std::string(route->methods) : "GET, HEAD, POST, OPTIONS");
    return response;
  }
  if (route->access == Route::Access::client) {
    if (auto refused = access_.refuse_client(head)) return refused;
  } else if (route->access == Route::Access::admin) {
    if (auto refused = access_.refuse_admin(head)) return refused;
  }
  if (!head.content_encoding.empty() && head.content_encoding != "identity") {
    return refusal(415,
                   fmt::format("Content-Encoding '{}' is not served: send the body as it is.",
                               head.content_encoding.substr(0, 40)),
                   "unsupported_encoding");
  }
  return std::nullopt;
}

void Router::handle(HttpRequest request, const std::shared_ptr<Exchange>& exchange) {
  const std::string_view path = request.head.path;
  const std::string_view name = route_name(path);
  if (name == "chat_completions") {
    generate(prepare_chat, std::move(request), exchange);
  } else if (name == "completions") {
    generate(prepare_completion, std::move(request), exchange);
  } else if (name == "models") {
    answer_later(*services_.worker, exchange, [this] { return list_models(*services_.models->fresh()); });
  } else if (name == "model") {
    answer_later(*services_.worker, exchange,
                 [this, id = std::string(path.substr(std::string_view("/v1/models/").size()))] {
                   return show_model(*services_.models->fresh(), id);
                 });
  } else if (name == "health") {
    answer_later(*services_.worker, exchange, [this, stopping = stopping_] {
      return health_response(services_.generator->instances(), services_.models->models(), stopping);
    });
  } else if (name == "metrics") {
    answer_later(*services_.worker, exchange, [this] {
      HttpResponse response;
      response.content_type = "text/plain; version=0.0.4; charset=utf-8";
      response.body = services_.metrics->text(services_.generator->metrics());
      return response;
    });
  } else if (name.starts_with("admin")) {
    answer_later(*services_.admin_worker, exchange, [this, request = std::move(request)] {
      return services_.admin->answer(request, services_.models->models());
    });
  } else {
    exchange->respond(welcome());
  }
}

// The pool may take a moment to tell its state: not on the io thread.
void Router::answer_later(Worker& worker, const std::shared_ptr<Exchange>& exchange,
                          std::function<HttpResponse()> make) {
  worker.post([weak = std::weak_ptr(exchange), loop = services_.loop, make = std::move(make)] {
    auto response = std::make_shared<HttpResponse>();
    try {
      *response = make();
    } catch (const std::exception& exception) {
      log::error("gateway: the pool's state cannot be told: {}", exception.what());
      *response = error_response(
          api_error_from({ErrorCode::io, "The server's state cannot be told; its log has the reason."}));
    }
    loop->post([weak, response] {
      if (const auto target = weak.lock()) target->respond(std::move(*response));
    });
  });
}

void Router::generate(Prepare prepare, HttpRequest request, const std::shared_ptr<Exchange>& exchange) {
  const auto launch = [services = job_services_, client = access_.client_of(request.head)](
                          Preparation prepared, const std::shared_ptr<Exchange>& target) {
    if (prepared) {
      GenerationJob::start(services, std::move(*prepared), client, target);
    } else {
      target->respond(error_response(prepared.error()));
    }
  };
  std::string& body = request.body;
  if (body.size() <= kInlineBody) {
    // Models that have changed may have new tokenizers to make: not here, either.
    if (const auto models = services_.models->current())
      return launch(prepare(body, *models, limits_), exchange);
  }
  services_.worker->post([this, prepare, launch, body = std::move(body), weak = std::weak_ptr(exchange)] {
    if (weak.expired()) return;  // the client left while this waited
    auto prepared = std::make_shared<Preparation>(tl::unexpected(ApiError{}));
    try {
      *prepared = prepare(body, *services_.models->fresh(), limits_);
    } catch (const std::exception& exception) {
      log::error("gateway: a request of {} bytes cannot be prepared: {}", body.size(), exception.what());
      *prepared = tl::unexpected(api_error_from({ErrorCode::io, "The server failed to handle the request."}));
    }
    services_.loop->post([launch, prepared, weak] {
      if (const auto target = weak.lock()) launch(std::move(*prepared), target);
    });
  });
}

}  // namespace switchyard::gateway
