#include "gateway/admin.h"

#include <unistd.h>

#include <algorithm>

#include "base/log.h"
#include "gateway/admission_error.h"
#include "gateway/json_reader.h"
#include "gateway/json_writer.h"

namespace switchyard::gateway {
namespace {

constexpr std::size_t kMostBody = 64 * 1024;
constexpr std::string_view kModels = "/admin/models";

HttpResponse failure(int status, std::string message, std::string code) {
  ApiError error;
  error.status = status;
  error.message = std::move(message);
  error.code = std::move(code);
  if (status >= 500) error.type = "server_error";
  return error_response(error);
}

// A load asks as a request does, and is refused as one.
HttpResponse not_loaded(const Error& error, std::string_view id) {
  return error_response(refusal_error({.error = error}, id, {}));
}

// What the catalogue reports: here `exhausted` is a conflict with what there is, not a queue that is full.
HttpResponse failure(const Error& error) {
  if (error.code == ErrorCode::exhausted) return failure(409, error.message, "conflict");
  return error_response(api_error_from(error));
}

HttpResponse wrong_method(std::string_view method, std::string_view allowed) {
  auto response = failure(405, fmt::format("Not allowed to {} here; allowed: {}.", method, allowed),
                          "method_not_supported");
  response.headers.emplace_back("Allow", std::string(allowed));
  return response;
}

ApiError bad_setting(const std::string& name, const std::string& what) {
  return invalid_field(name, "'{}': {}", name, what);
}

// The text of a JSON value as a configuration file would have it.
ApiResult<std::string> setting_text(const std::string& name, const nlohmann::ordered_json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number() || value.is_boolean()) return value.dump();
  return tl::unexpected(bad_setting(name, fmt::format("must be one value, is {}", json_kind(value))));
}

std::optional<ApiError> read_setting(pool::ModelSettings& settings, const std::string& name,
                                     const nlohmann::ordered_json& value) {
  if (name == "name" || name == "path") {
    if (!value.is_string())
      return bad_setting(name, fmt::format("must be a string, is {}", json_kind(value)));
    if (name == "name") {
      settings.id = value.get<std::string>();
    } else {
      settings.path = value.get<std::string>();
    }
    return std::nullopt;
  }
  const auto text = setting_text(name, value);
  if (!text) return text.error();
  const auto set = pool::set(settings, name, *text);
  if (set) return std::nullopt;
  if (set.error().code != ErrorCode::not_found) return bad_setting(name, set.error().message);
  std::string known = "name, path";
  for (const auto setting : pool::setting_names()) known += ", " + std::string(setting);
  return bad_setting(name.substr(0, 64), "is not known; known are: " + known);
}

// A checkpoint that can be read. A client does not know where the server stands, so the path is absolute.
std::optional<ApiError> check_path(const std::filesystem::path& path) {
  const auto bad = [](std::string what) { return bad_setting("path", what); };
  if (path.native().size() > pool::kMaxPathBytes || path.native().find('\0') != std::string::npos)
    return bad(fmt::format("must be a path of 1 to {} bytes, none of them 0", pool::kMaxPathBytes));
  if (!path.is_absolute()) return bad("must be the absolute path of a checkpoint on the server");
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (error && status.type() != std::filesystem::file_type::not_found)
    return bad("cannot be looked at: " + error.message());
  if (!std::filesystem::exists(status)) return bad("there is no such file or directory on the server");
  const bool directory = std::filesystem::is_directory(status);
  if (!directory && !std::filesystem::is_regular_file(status))
    return bad("is neither a file nor a directory");
  if (::access(path.c_str(), directory ? R_OK | X_OK : R_OK) != 0) return bad("the server may not read it");
  return std::nullopt;
}

void write_settings(JsonWriter& writer, const pool::ModelSettings& settings) {
  writer.begin_object();
  writer.key("name").string(settings.id).key("path").string(settings.path.string());
  writer.key("ttft").number(static_cast<float>(to_seconds(settings.targets.first_token)));
  writer.key("tbt").number(static_cast<float>(to_seconds(settings.targets.between_tokens)));
  writer.key("weight").number(static_cast<float>(settings.weight));
  writer.key("pinned").boolean(settings.pinned);
  writer.key("context").integer(settings.context);
  writer.key("max_waiting").integer(settings.max_waiting);
  writer.key("rate").begin_object();
  writer.key("per_second").number(static_cast<float>(settings.rate.per_second));
  writer.key("burst").number(static_cast<float>(settings.rate.burst)).end_object();
  writer.end_object();
}

void write_model(JsonWriter& writer, const pool::ServedModel& model, const pool::ModelSettings* settings) {
  writer.begin_object();
  writer.key("id").string(model.id).key("object").string("model");
  writer.key("created").integer(model.created);
  writer.key("state").string(pool::to_string(model.state)).key("detail").string(model.detail);
  writer.key("max_model_len").integer(model.context).key("pinned").boolean(model.pinned);
  writer.key("resident_on").begin_array();
  for (const auto& instance : model.resident_on) writer.string(instance);
  writer.end_array();
  writer.key("waiting").integer(static_cast<std::int64_t>(model.waiting));
  writer.key("running").integer(static_cast<std::int64_t>(model.running));
  writer.key("settings");
  if (settings != nullptr) {
    write_settings(writer, *settings);
  } else {
    writer.null();  // it is being removed
  }
  writer.end_object();
}

const pool::ModelSettings* settings_of(const std::vector<pool::ModelSettings>& all,
                                       const pool::ServedModel& model) {
  if (model.state == pool::ModelState::removing) return nullptr;
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const auto& one) { return one.id == model.id; });
  return found == all.end() ? nullptr : &*found;
}

void write_names(JsonWriter& writer, std::string_view key, const std::vector<std::string>& names) {
  writer.key(key).begin_array();
  for (const auto& name : names) writer.string(name);
  writer.end_array();
}

// {"id": …, "state": …}: what was asked for goes on behind the answer.
HttpResponse accepted(int status, std::string_view id, std::string_view key, std::string_view value) {
  HttpResponse response;
  response.status = status;
  JsonWriter writer(response.body);
  writer.begin_object().key("id").string(id).key("object").string("model");
  writer.key(key).raw(value).end_object();
  return response;
}

}  // namespace

ApiResult<pool::ModelSettings> parse_model(std::string_view body, const pool::ModelSettings& defaults) {
  auto json = parse_json_object(body);
  if (!json) return tl::unexpected(std::move(json.error()));
  pool::ModelSettings settings = defaults;
  settings.id.clear();
  settings.path.clear();
  for (const auto& [name, value] : json->items()) {
    if (value.is_null()) continue;
    if (name == "rate" && value.is_object()) {
      for (const auto& [part, number] : value.items()) {
        if (number.is_null()) continue;
        if (auto error = read_setting(settings, "rate." + part, number))
          return tl::unexpected(std::move(*error));
      }
      if (settings.rate.per_second == 0 && value.contains("burst") && !value["burst"].is_null())
        return tl::unexpected(bad_setting("rate.burst", "is nothing without a rate.per_second above 0"));
    } else if (name.starts_with("rate")) {
      return tl::unexpected(
          bad_setting(name.substr(0, 64), "must be {\"rate\": {\"per_second\": …, \"burst\": …}}"));
    } else if (auto error = read_setting(settings, name, value)) {
      return tl::unexpected(std::move(*error));
    }
  }
  if (settings.path.empty())
    return tl::unexpected(bad_setting("path", "is required: that of the checkpoint"));
  if (auto error = check_path(settings.path)) return tl::unexpected(std::move(*error));
  if (settings.id.empty()) settings.id = pool::default_id(settings.path);
  pool::complete(settings);
  if (auto valid = pool::validate(settings); !valid) return tl::unexpected(api_error_from(valid.error()));
  return settings;
}

HttpResponse AdminApi::answer(const HttpRequest& request,
                              const std::vector<pool::ServedModel>& models) const {
  const std::string& method = request.head.method;
  std::string_view path = request.head.path;
  if (request.body.size() > kMostBody) {
    return failure(413, fmt::format("The body of an admin call is larger than {} bytes.", kMostBody),
                   "body_too_large");
  }
  if (path == "/admin/reload") return reload();
  if (path == kModels) return method == "POST" ? add(request.body) : list(models);
  path.remove_prefix(kModels.size() + 1);
  const auto is_model = [&](std::string_view id) {
    return std::ranges::any_of(models, [&](const auto& model) { return model.id == id; });
  };
  const auto slash = path.rfind('/');  // ids may have some of their own
  const auto action = slash == std::string_view::npos ? std::string_view() : path.substr(slash + 1);
  const bool acts = slash != 0 && (action == "load" || action == "pin" || action == "unpin");
  if (method != "POST") {
    if (acts && !is_model(path) && is_model(path.substr(0, slash)))
      return wrong_method(method, "POST, OPTIONS");
    return method == "DELETE" ? remove(std::string(path)) : show(path, models);
  }
  if (acts) return act(std::string(path.substr(0, slash)), action);
  if (is_model(path)) return wrong_method(method, "GET, HEAD, DELETE, OPTIONS");
  return failure(404, "Unknown request URL. POST /admin/models/ID/load, …/pin and …/unpin are served.",
                 "unknown_url");
}

HttpResponse AdminApi::list(const std::vector<pool::ServedModel>& models) const {
  const auto settings = controls_.catalogue->settings();
  HttpResponse response;
  JsonWriter writer(response.body);
  writer.begin_object().key("object").string("list").key("data").begin_array();
  for (const auto& model : models) write_model(writer, model, settings_of(settings, model));
  writer.end_array().end_object();
  return response;
}

HttpResponse AdminApi::show(std::string_view id, const std::vector<pool::ServedModel>& models) const {
  // The newest of that name: an older one may still be ending its requests.
  const auto found =
      std::find_if(models.rbegin(), models.rend(), [&](const auto& one) { return one.id == id; });
  if (found == models.rend())
    return failure({ErrorCode::not_found, fmt::format("there is no model '{}'", id.substr(0, 200))});
  const auto settings = controls_.catalogue->settings();
  HttpResponse response;
  JsonWriter writer(response.body);
  write_model(writer, *found, settings_of(settings, *found));
  return response;
}

HttpResponse AdminApi::add(std::string_view body) const {
  const auto defaults = controls_.reloader != nullptr ? controls_.reloader->defaults() : controls_.defaults;
  auto settings = parse_model(body, defaults);
  if (!settings) return error_response(settings.error());
  if (auto added = controls_.catalogue->add_model(*settings); !added) return failure(added.error());
  log::info("admin: model '{}' added from {}", settings->id, settings->path.string());
  return accepted(202, settings->id, "state", "\"preparing\"");
}

HttpResponse AdminApi::remove(const std::string& id) const {
  if (auto removed = controls_.catalogue->remove_model(id); !removed) return failure(removed.error());
  log::info("admin: model '{}' removed", id);
  return accepted(200, id, "deleted", "true");
}

HttpResponse AdminApi::act(const std::string& id, std::string_view action) const {
  pool::Catalogue& catalogue = *controls_.catalogue;
  const bool load = action == "load";
  const auto done = load ? catalogue.load_model(id) : catalogue.pin_model(id, action == "pin");
  if (!done && load && done.error().code != ErrorCode::not_found) return not_loaded(done.error(), id);
  if (!done) return failure(done.error());
  log::info("admin: {} of model '{}'", action, id);
  return load ? accepted(202, id, "loading", "true")
              : accepted(200, id, "pinned", action == "pin" ? "true" : "false");
}

HttpResponse AdminApi::reload() const {
  if (controls_.reloader == nullptr) {
    return failure(409, "The server was started without a configuration file: there is nothing to reload.",
                   "no_configuration");
  }
  const auto outcome = controls_.reloader->reload();
  if (!outcome) {
    return failure(400, "Nothing was changed: " + outcome.error().message, "invalid_configuration");
  }
  HttpResponse response;
  JsonWriter writer(response.body);
  writer.begin_object();
  write_names(writer, "added", outcome->models.added);
  write_names(writer, "removed", outcome->models.removed);
  write_names(writer, "changed", outcome->models.changed);
  write_names(writer, "needs_restart", outcome->needs_restart);
  write_names(writer, "warnings", outcome->warnings);
  writer.end_object();
  return response;
}

}  // namespace switchyard::gateway
