// Admin calls: who may make them, what they do, and what hostile ones get.
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "gateway/fixture.h"
#include "pool/config.h"

namespace switchyard::gateway::testing {
namespace {

using nlohmann::json;

class AdminTest : public GatewayTest {
 protected:
  AdminTest() {
    with_admin = true;
    directory_ =
        std::filesystem::path(::testing::TempDir()) / ("switchyard-admin-" + std::to_string(::getpid()));
    std::filesystem::create_directories(directory_);
    file_ = directory_ / "new.gguf";
    std::ofstream(file_) << "GGUF";
  }
  ~AdminTest() override {
    gateway.reset();  // before what it uses
    std::filesystem::remove_all(directory_);
  }

  ClientResponse call(std::string_view method, std::string_view path, std::string_view body = {},
                      std::string_view key = {}) {
    const std::string header = key.empty() ? "" : "Authorization: Bearer " + std::string(key) + "\r\n";
    return http(port, method, path, body, header);
  }
  std::string body_with(const std::string& more = {}) {
    return R"({"path": )" + json(file_.string()).dump() + more + "}";
  }

  std::filesystem::path directory_;
  std::filesystem::path file_;
};

TEST_F(AdminTest, AddsShowsPinsLoadsAndRemoves) {
  start();
  EXPECT_EQ(
      call("POST", "/admin/models", body_with(R"(, "name": "org/new", "ttft": "2s", "tbt": 0.05, "weight": 2,
                              "context": 1024, "max_waiting": 7, "rate": {"per_second": 4})"))
          .status,
      202);
  const auto settings = catalogue->settings().back();
  EXPECT_EQ(settings.path, file_);
  EXPECT_EQ(settings.targets.first_token, std::chrono::seconds(2));
  EXPECT_EQ(settings.targets.between_tokens, std::chrono::milliseconds(50));
  EXPECT_EQ(settings.weight, 2);
  EXPECT_EQ(settings.context, 1024u);
  EXPECT_EQ(settings.max_waiting, 7u);
  EXPECT_EQ(settings.rate.burst, 4);

  auto shown = call("GET", "/admin/models/org/new").json();
  EXPECT_EQ(shown["state"], "preparing");
  EXPECT_EQ(shown["settings"]["rate"]["per_second"], 4);
  EXPECT_EQ(shown["settings"]["path"], file_.string());
  generator->change_models([](auto& models) {
    models.back().state = pool::ModelState::ready;
    models.back().resident_on = {"unified-0"};
    models.back().waiting = 3;
  });
  EXPECT_EQ(call("POST", "/admin/models/org/new/pin").json()["pinned"], true);
  EXPECT_EQ(call("POST", "/admin/models/toy/pin").status, 409);
  EXPECT_EQ(call("POST", "/admin/models/org/new/load").status, 202);
  EXPECT_EQ(catalogue->loaded(), std::vector<std::string>{"org/new"});
  shown = call("GET", "/admin/models").json()["data"][2];
  EXPECT_EQ(shown["id"], "org/new");
  EXPECT_EQ(shown["pinned"], true);
  EXPECT_EQ(shown["resident_on"][0], "unified-0");
  EXPECT_EQ(shown["waiting"], 3);
  EXPECT_EQ(call("POST", "/admin/models/org/new/unpin").json()["pinned"], false);
  EXPECT_EQ(call("DELETE", "/admin/models/org/new").json()["deleted"], true);
  EXPECT_EQ(call("DELETE", "/admin/models/org/new").status, 404);
  EXPECT_EQ(call("GET", "/admin/models/org/new").json()["settings"], nullptr);
  EXPECT_EQ(call("GET", "/admin/models/org/new").json()["state"], "removing");
}

TEST_F(AdminTest, TheNameComesFromTheFileAndTheRestFromTheDefaults) {
  defaults.targets.first_token = std::chrono::seconds(3);
  start();
  EXPECT_EQ(call("POST", "/admin/models", body_with()).json()["id"], "new");
  EXPECT_EQ(catalogue->settings().back().targets.first_token, std::chrono::seconds(3));
  EXPECT_EQ(call("POST", "/admin/models", body_with()).status, 409);
}

TEST_F(AdminTest, RefusesWhatIsWrongAndNamesIt) {
  start();
  const std::string path = json(file_.string()).dump();
  const std::vector<std::pair<std::string, std::string>> wrong{
      {"{}", "path"},
      {R"({"path": "relative.gguf"})", "path"},
      {R"({"path": ""})", "path"},
      {R"({"path": 7})", "path"},
      {R"({"path": "/no/such/file.gguf"})", "path"},
      {R"({"path": "/dev/null"})", "path"},
      {"{\"path\": \"/tmp\\u0000/x\"}", "path"},
      {R"({"path": "/)" + std::string(5000, 'x') + "\"}", "path"},
      {R"({"path": )" + path + R"(, "ttft": -1})", "ttft"},
      {R"({"path": )" + path + R"(, "ttft": "soon"})", "ttft"},
      {R"({"path": )" + path + R"(, "tbt": [1]})", "tbt"},
      {R"({"path": )" + path + R"(, "weight": {}})", "weight"},
      {R"({"path": )" + path + R"(, "weight": 1e300})", "weight"},
      {R"({"path": )" + path + R"(, "pinned": 1})", "pinned"},
      {R"({"path": )" + path + R"(, "context": 1.5})", "context"},
      {R"({"path": )" + path + R"(, "context": 99999999999999999999})", "context"},
      {R"({"path": )" + path + R"(, "rate": 5})", "rate"},
      {R"({"path": )" + path + R"(, "rate": {"per_hour": 5}})", "rate.per_hour"},
      {R"({"path": )" + path + R"(, "rate.burst": 5})", "rate.burst"},
      {R"({"path": )" + path + R"(, "colour": "red"})", "colour"},
      {R"({"path": )" + path + R"(, "name": ["a"]})", "name"},
  };
  for (const auto& [body, param] : wrong) {
    const auto response = call("POST", "/admin/models", body);
    EXPECT_EQ(response.status, 400) << body;
    EXPECT_EQ(response.json()["error"]["param"], param) << body << response.body;
  }
  for (const std::string& body :
       {std::string("not json"), std::string("[1]"), std::string("\"x\""), std::string(),
        std::string(5000, '['), R"({"path": )" + path + R"(, "name": "\u0007bell"})",
        R"({"path": )" + path + R"(, "name": "/a"})",
        R"({"path": )" + path + R"(, "name": ")" + std::string(300, 'n') + "\"}",
        R"({"path": )" + path + R"(, "ttft": 0})", R"({"path": )" + path + R"(, "weight": 0})",
        R"({"path": )" + path + R"(, "rate": {"burst": 4}})",
        R"({"path": )" + path + R"(, "rate": {"burst": 4, "per_second": 0}})"}) {
    EXPECT_EQ(call("POST", "/admin/models", body).status, 400) << body;
  }
  EXPECT_EQ(call("POST", "/admin/models", "{" + std::string(70000, ' ') + "}").status, 413);
  EXPECT_EQ(catalogue->settings().size(), 2u);
  for (const char* url :
       {"/admin/models/toy/fly", "/admin/models/toy/unload", "/admin/models//load", "/admin/models/load"})
    EXPECT_EQ(call("POST", url).status, 404) << url;
  for (const char* action : {"load", "pin", "unpin", "unload"}) {
    const auto response = call("POST", std::string("/admin/models/nothing/") + action);
    EXPECT_EQ(response.status, 404) << action;
  }
  for (const char* method : {"GET", "DELETE"}) {
    EXPECT_EQ(call(method, "/admin/models/nothing").status, 404);
    EXPECT_EQ(call(method, "/admin/models/nothing/pin").status, 404);
    const auto response = call(method, "/admin/models/toy/pin");
    EXPECT_EQ(response.status, 405);
    EXPECT_EQ(response.headers.at("allow"), "POST, OPTIONS");
  }
  EXPECT_EQ(call("POST", "/admin/models/toy").status, 405);
  EXPECT_EQ(call("PUT", "/admin/models/toy").status, 405);
  EXPECT_EQ(call("DELETE", "/admin/models").status, 405);
  EXPECT_EQ(call("GET", "/admin/reload").status, 405);
  EXPECT_EQ(call("GET", "/admin").status, 404);
  EXPECT_EQ(call("POST", "/admin/reload").status, 409);  // there is no file
}

TEST_F(AdminTest, NeedsAnAdminKeyWhereThereIsOne) {
  GatewayOptions options;
  options.api_keys = {"user"};
  options.admin_keys = {"root", "other"};
  start(options);
  EXPECT_EQ(call("GET", "/admin/models").status, 401);
  EXPECT_EQ(call("GET", "/admin/models", {}, "wrong").status, 401);
  const auto user = call("DELETE", "/admin/models/toy", {}, "user");
  EXPECT_EQ(user.status, 403);
  EXPECT_EQ(user.json()["error"]["code"], "admin_key_required");
  EXPECT_EQ(call("GET", "/admin/models", {}, "root").status, 200);
  EXPECT_EQ(call("GET", "/admin/models", {}, "other").status, 200);
  EXPECT_EQ(call("GET", "/v1/models", {}, "root").status, 401);  // it is not an API key
  EXPECT_EQ(catalogue->settings().size(), 2u);
}

TEST_F(AdminTest, IsClosedWithApiKeysAlone) {
  GatewayOptions options;
  options.api_keys = {"user"};
  start(options);
  for (const char* key : {"", "user"}) {
    const auto response = call("GET", "/admin/models", {}, key);
    EXPECT_EQ(response.status, 403);
    EXPECT_NE(response.json()["error"]["message"].get<std::string>().find("admin_keys"), std::string::npos);
  }
}

TEST_F(AdminTest, IsClosedBeyondLoopbackWithoutKeys) {
  GatewayOptions options;
  options.host = "0.0.0.0";
  start(options);
  EXPECT_EQ(call("GET", "/admin/models").status, 403);
  EXPECT_EQ(call("GET", "/v1/models").status, 200);
}

TEST_F(AdminTest, PagesOfOtherSitesGetNothingWithoutKeys) {
  start();
  const auto with = [&](std::string_view host, std::string_view origin) {
    HttpClient client(port);
    client.send("GET /admin/models HTTP/1.1\r\nHost: " + std::string(host) + "\r\n" +
                (origin.empty() ? "" : "Origin: " + std::string(origin) + "\r\n") + "\r\n");
    return client.read_response().status;
  };
  EXPECT_EQ(with("localhost:1", ""), 200);
  EXPECT_EQ(with("LOCALHOST", ""), 200);
  EXPECT_EQ(with("[::1]:8000", ""), 200);
  EXPECT_EQ(with("127.0.0.1:8000", "http://127.0.0.1:8000"), 200);
  EXPECT_EQ(with("127.0.0.1:8000", "http://evil.example"), 403);
  EXPECT_EQ(with("127.0.0.1:8000", "null"), 403);
  EXPECT_EQ(with("rebound.example:8000", ""), 403);
  EXPECT_EQ(with("rebound.example:8000", "http://rebound.example:8000"), 403);
}

TEST_F(AdminTest, IsNotThereWithoutACatalogue) {
  with_admin = false;
  start();
  EXPECT_EQ(call("GET", "/admin/models").status, 404);
}

class ReloadTest : public AdminTest {
 protected:
  // A server whose configuration is `yaml_`.
  void start_with(const std::string& yaml) {
    yaml_ = yaml;
    generator = std::make_unique<FakeGenerator>();
    catalogue = std::make_unique<FakeCatalogue>(*generator);
    auto config = pool::parse_config(yaml_);
    ASSERT_TRUE(config) << config.error().message;
    ASSERT_TRUE(catalogue->replace(config->pool.models));
    reloader = std::make_unique<pool::Reloader>(
        pool::Reloader::Source{.read = [this] { return pool::parse_config(yaml_); },
                               .complete =
                                   [](pool::ServeConfig& read) {
                                     if (read.pool.models.empty())
                                       read.pool.models.push_back({.id = "default", .path = "/default"});
                                     return Status{};
                                   }},
        *config, *catalogue);
    auto started =
        Gateway::start({}, *generator, {.catalogue = catalogue.get(), .reloader = reloader.get()}, toy_text);
    ASSERT_TRUE(started);
    gateway = std::move(*started);
    port = gateway->port();
  }
  std::string yaml_;
};

TEST_F(ReloadTest, TakesModelsAndSaysWhatNeedsARestart) {
  start_with("models: [{name: toy, path: /a}, {name: b, path: /b}]\ndefaults: {ttft: 5s}");
  yaml_ =
      "models: [{name: toy, path: /a, ttft: 1s}, {name: c, path: /c}]\ndefaults: {tbt: 1s}\nberths: 4\n"
      "policy: quota";
  const auto response = call("POST", "/admin/reload");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.json()["added"], json({"c"}));
  EXPECT_EQ(response.json()["removed"], json({"b"}));
  EXPECT_EQ(response.json()["changed"], json({"toy"}));
  EXPECT_EQ(response.json()["needs_restart"], json({"berths", "policy"}));
  EXPECT_EQ(reloader->defaults().targets.between_tokens, std::chrono::seconds(1));
  EXPECT_EQ(call("POST", "/admin/models", body_with()).status, 202);
  EXPECT_EQ(catalogue->settings().back().targets.between_tokens, std::chrono::seconds(1));
}

TEST_F(ReloadTest, ABadFileChangesNothing) {
  start_with("models: [{name: toy, path: /a}]");
  const auto before = catalogue->settings();
  for (const char* bad :
       {"models: [{name: toy}]", "models: [", "berths: 4\nmodels: [{name: x, path: /x}, {name: x, path: /x}]",
        "api_keys: []", "instances: {}"}) {
    yaml_ = bad;
    const auto response = call("POST", "/admin/reload");
    EXPECT_EQ(response.status, 400) << bad;
    EXPECT_EQ(response.json()["error"]["code"], "invalid_configuration");
    EXPECT_EQ(catalogue->settings(), before) << bad;
  }
  yaml_ = "models: [{name: toy, path: /a}]";
  EXPECT_EQ(call("POST", "/admin/reload").status, 200);
}

TEST_F(ReloadTest, AFileThatNamesNoModelChangesNothing) {
  start_with("models: [{name: toy, path: /a}]");
  const auto before = catalogue->settings();
  for (const char* empty : {"", "# nothing\n", "models:\n", "berths: 4\n", "{}"}) {
    yaml_ = empty;
    const auto response = call("POST", "/admin/reload");
    EXPECT_EQ(response.status, 400) << empty;
    EXPECT_EQ(response.json()["error"]["code"], "invalid_configuration");
    EXPECT_NE(response.json()["error"]["message"].get<std::string>().find("names no model"),
              std::string::npos);
    EXPECT_EQ(catalogue->settings(), before) << empty;
  }
}

TEST_F(ReloadTest, AServerOfTheDefaultModelKeepsItUntilAFileNamesOthers) {
  start_with("berths: 2");
  yaml_ = "berths: 3";
  auto response = call("POST", "/admin/reload");
  EXPECT_EQ(response.status, 200) << response.body;
  EXPECT_EQ(catalogue->settings().front().id, "default");
  yaml_ = "model: " + file_.string();
  EXPECT_EQ(call("POST", "/admin/reload").status, 200);
  yaml_ = "";
  EXPECT_EQ(call("POST", "/admin/reload").status, 400);
  EXPECT_EQ(catalogue->settings().front().id, "new");
}

TEST_F(ReloadTest, AModelWhoseNewCheckpointCannotBeOpenedStays) {
  start_with("models: [{name: toy, path: /a}, {name: b, path: /b}]");
  // `file_` is there, but no checkpoint.
  yaml_ = "models: [{name: toy, path: " + file_.string() +
          ", ttft: 1s}, {name: b, path: /no/such/file}, {name: c, path: /nor/this}]";
  const auto response = call("POST", "/admin/reload");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.json()["changed"], json({"toy"}));
  EXPECT_EQ(response.json()["removed"], json::array());
  EXPECT_EQ(response.json()["added"], json({"c"}));
  const auto warnings = response.json()["warnings"];
  ASSERT_EQ(warnings.size(), 3u) << response.body;
  EXPECT_NE(warnings[0].get<std::string>().find("'toy' stays the one from /a"), std::string::npos);
  EXPECT_NE(warnings[1].get<std::string>().find("/no/such/file"), std::string::npos);
  EXPECT_NE(warnings[2].get<std::string>().find("'c' is listed as failed"), std::string::npos);
  const auto settings = catalogue->settings();
  EXPECT_EQ(settings[0].path, "/a");
  EXPECT_EQ(settings[0].targets.first_token, std::chrono::seconds(1));
  EXPECT_EQ(settings[1].path, "/b");
}

TEST(FileWatch, SeesWhatWasReplaced) {
  const auto file = std::filesystem::path(::testing::TempDir()) / ("watch-" + std::to_string(::getpid()));
  std::ofstream(file) << "one";
  pool::FileWatch watch(file);
  EXPECT_FALSE(watch.changed());
  std::ofstream(file) << "longer";
  EXPECT_FALSE(watch.changed());  // it may still be written
  EXPECT_TRUE(watch.changed());
  EXPECT_FALSE(watch.changed());
  std::filesystem::remove(file);
  EXPECT_FALSE(watch.changed());
  EXPECT_FALSE(watch.changed());
  std::ofstream(file) << "another";
  EXPECT_FALSE(watch.changed());
  EXPECT_TRUE(watch.changed());
  std::filesystem::remove(file);
}

}  // namespace
}  // namespace switchyard::gateway::testing
