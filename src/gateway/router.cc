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
  std::string_view path;  // a trailing '/' and more: with anything behind it
  std::string_view name;
  std::string_view methods;
  bool needs_key;
};

constexpr std::array<Route, 7> kRoutes{{
    {"/", "root", "GET, HEAD, OPTIONS", false},
    {"/health", "health", "GET, HEAD, OPTIONS", false},
    {"/metrics", "metrics", "GET, HEAD, OPTIONS", false},
    {"/v1/models", "models", "GET, HEAD, OPTIONS", true},
    {"/v1/models/", "model", "GET, HEAD, OPTIONS", true},
    {"/v1/chat/completions", "chat_completions", "POST, OPTIONS", true},
    {"/v1/completions", "completions", "POST, OPTIONS", true},
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

Sha256Digest digest_of(std::string_view key) {
  Sha256 hash;
  hash.update(std::as_bytes(std::span(key.data(), key.size())));
  return hash.finish();
}

}  // namespace

ApiKeys::ApiKeys(const std::vector<std::string>& keys) {
  for (const std::string& key : keys) digests_.push_back(digest_of(key));
}

bool ApiKeys::allow(std::string_view authorization) const {
  if (digests_.empty()) return true;
  constexpr std::string_view kScheme = "bearer ";
  if (authorization.size() < kScheme.size()) return false;
  const bool bearer = std::equal(kScheme.begin(), kScheme.end(), authorization.begin(), [](char a, char b) {
    return a == (b >= 'A' && b <= 'Z' ? static_cast<char>(b - 'A' + 'a') : b);
  });
  if (!bearer) return false;
  const Sha256Digest offered = digest_of(authorization.substr(kScheme.size()));
  bool allowed = false;
  for (const Sha256Digest& digest : digests_) {
    unsigned difference = 0;
    for (std::size_t i = 0; i < digest.size(); ++i)
      difference |= static_cast<unsigned>(digest[i] ^ offered[i]);
    allowed |= difference == 0;
  }
  return allowed;
}

Router::Router(const GatewayOptions& options, const RouterServices& services, ModelTable models)
    : services_(services), models_(std::move(models)), keys_(options.api_keys), limits_(options.limits) {
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
  if (route->needs_key && !keys_.allow(head.authorization)) {
    auto response =
        refusal(401,
                head.authorization.empty() ? "No API key was given: send it as 'Authorization: Bearer KEY'."
                                           : "The API key is not one of this server's.",
                "invalid_api_key");
    response.headers.emplace_back("WWW-Authenticate", "Bearer");
    return response;
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
    generate(prepare_chat, std::move(request.body), exchange);
  } else if (name == "completions") {
    generate(prepare_completion, std::move(request.body), exchange);
  } else if (name == "models") {
    exchange->respond(list_models());
  } else if (name == "model") {
    exchange->respond(show_model(path.substr(std::string_view("/v1/models/").size())));
  } else if (name == "health") {
    answer_later(exchange, [this, stopping = stopping_] {
      std::vector<std::string> ids;
      for (const auto& [id, model] : models_.all()) ids.push_back(id);
      return health_response(services_.generator->instances(), ids, stopping);
    });
  } else if (name == "metrics") {
    answer_later(exchange, [this] {
      HttpResponse response;
      response.content_type = "text/plain; version=0.0.4; charset=utf-8";
      response.body = services_.metrics->text(services_.generator->metrics());
      return response;
    });
  } else {
    exchange->respond(welcome());
  }
}

// The pool may take a moment to tell its state: not on the io thread.
void Router::answer_later(const std::shared_ptr<Exchange>& exchange, std::function<HttpResponse()> make) {
  services_.worker->post([weak = std::weak_ptr(exchange), loop = services_.loop, make = std::move(make)] {
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

void Router::generate(Prepare prepare, std::string body, const std::shared_ptr<Exchange>& exchange) {
  const auto launch = [services = job_services_](Preparation prepared,
                                                 const std::shared_ptr<Exchange>& target) {
    if (prepared) {
      GenerationJob::start(services, std::move(*prepared), target);
    } else {
      target->respond(error_response(prepared.error()));
    }
  };
  if (body.size() <= kInlineBody) return launch(prepare(body, models_, limits_), exchange);
  services_.worker->post([this, prepare, launch, body = std::move(body), weak = std::weak_ptr(exchange)] {
    if (weak.expired()) return;  // the client left while this waited
    auto prepared = std::make_shared<Preparation>(tl::unexpected(ApiError{}));
    try {
      *prepared = prepare(body, models_, limits_);
    } catch (const std::exception& exception) {
      log::error("gateway: a request of {} bytes cannot be prepared: {}", body.size(), exception.what());
      *prepared = tl::unexpected(api_error_from({ErrorCode::io, "The server failed to handle the request."}));
    }
    services_.loop->post([launch, prepared, weak] {
      if (const auto target = weak.lock()) launch(std::move(*prepared), target);
    });
  });
}

HttpResponse Router::list_models() const {
  HttpResponse response;
  JsonWriter writer(response.body);
  writer.begin_object().key("object").string("list").key("data").begin_array();
  for (const auto& [id, model] : models_.all()) write_model(writer, model);
  writer.end_array().end_object();
  return response;
}

HttpResponse Router::show_model(std::string_view id) const {
  const auto model = models_.find(id);
  if (!model) return error_response(model.error());
  HttpResponse response;
  JsonWriter writer(response.body);
  write_model(writer, **model);
  return response;
}

}  // namespace switchyard::gateway
