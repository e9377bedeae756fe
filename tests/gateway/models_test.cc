// Models that appear, fail and go while requests come.
#include <atomic>
#include <chrono>
#include <thread>

#include "gateway/fixture.h"

namespace switchyard::gateway::testing {
namespace {

using pool::ModelState;
using std::chrono::seconds;

class ModelsTest : public GatewayTest {
 protected:
  void add(const std::string& id, ModelState state = ModelState::ready) {
    generator->change_models([&](auto& models) {
      models.push_back({id, nullptr, 2048, 1700000009});
      models.back().state = state;
    });
  }
  ClientResponse complete_with(const std::string& model) {
    return http(port, "POST", "/v1/completions", R"({"prompt": "say a", "model": ")" + model + "\"}");
  }
};

TEST_F(ModelsTest, OneThatIsPreparedIsAnsweredLater) {
  start();
  add("new", ModelState::preparing);
  auto early = complete_with("new");
  EXPECT_EQ(early.status, 503);
  EXPECT_EQ(early.json()["error"]["code"], "model_not_ready");
  EXPECT_EQ(early.json()["error"]["param"], "model");
  EXPECT_EQ(early.headers.at("retry-after"), "2");
  generator->set_model("new", ModelState::preparing, "14 of 20 tensors", std::chrono::milliseconds(6500));
  early = complete_with("new");
  EXPECT_NE(early.json()["error"]["message"].get<std::string>().find("14 of 20"), std::string::npos);
  EXPECT_EQ(early.headers.at("retry-after"), "7");
  EXPECT_EQ(http(port, "GET", "/v1/models/new").status, 503);
  EXPECT_EQ(complete_with("toy").status, 200);
  generator->set_model("new", ModelState::ready);
  EXPECT_EQ(complete_with("new").json()["choices"][0]["text"], "a");
  EXPECT_EQ(http(port, "GET", "/v1/models/new").status, 200);
}

TEST_F(ModelsTest, OneThatFailedSaysWhy) {
  start();
  generator->set_model("toy", ModelState::failed, "no tensor 'output.weight'", seconds(60));
  const auto response = complete_with("toy");
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(response.json()["error"]["code"], "model_failed");
  EXPECT_EQ(response.headers.at("retry-after"), "60");
  EXPECT_NE(response.json()["error"]["message"].get<std::string>().find("output.weight"), std::string::npos);
  EXPECT_EQ(complete_with("org/other").status, 200);
  EXPECT_EQ(generator->submitted(), 1u);
}

TEST_F(ModelsTest, OneThatFailedForGoodIsNotToBeAskedForAgain) {
  with_admin = true;
  start();
  generator->set_model("toy", ModelState::failed, "architecture 'Mamba' is not known");
  generator->change_models([](auto& models) { models[0].permanent = true; });
  const auto response = complete_with("toy");
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(response.json()["error"]["code"], "model_failed");
  EXPECT_EQ(response.headers.count("retry-after"), 0u);
  EXPECT_NE(response.json()["error"]["message"].get<std::string>().find("Mamba"), std::string::npos);
  EXPECT_EQ(http(port, "GET", "/v1/models").status, 200);
  EXPECT_TRUE(catalogue->loaded().empty());
}

TEST_F(ModelsTest, TheListHasThoseThatAreReadyAndSaysMoreOfTheOthers) {
  start();
  generator->set_model("toy", ModelState::failed, "because");
  add("going", ModelState::removing);
  const auto list = http(port, "GET", "/v1/models").json();
  ASSERT_EQ(list["data"].size(), 1u);
  EXPECT_EQ(list["data"][0]["id"], "org/other");
  ASSERT_EQ(list["not_ready"].size(), 2u);
  EXPECT_EQ(list["not_ready"][0]["id"], "toy");
  EXPECT_EQ(list["not_ready"][0]["state"], "failed");
  EXPECT_EQ(list["not_ready"][0]["detail"], "because");
  EXPECT_EQ(list["not_ready"][1]["state"], "removing");
}

TEST_F(ModelsTest, OneThatGoesEndsItsRequests) {
  start({}, [](const auto&) {
    FakePlan plan;
    plan.tokens = byte_tokens("abcd");
    plan.hold_after = 2;
    return plan;
  });
  HttpClient client(port);
  client.request("POST", "/v1/completions", completion_body("x", R"(, "stream": true)"));
  ASSERT_EQ(client.read_head().status, 200);
  std::string bytes;
  ASSERT_TRUE(client.read_until("b\"", bytes));
  generator->set_model("toy", ModelState::removing);
  EXPECT_EQ(complete_with("toy").status, 404);
  generator->change_models([](auto& models) { models.clear(); });
  EXPECT_EQ(complete_with("toy").status, 404);  // the table without it stands now
  generator->release();
  EXPECT_TRUE(client.read_until("[DONE]", bytes));
  EXPECT_NE(bytes.find("d\""), std::string::npos);
}

TEST_F(ModelsTest, OneOfTheSameNameMayComeWhileTheFormerGoes) {
  start();
  generator->set_model("toy", ModelState::removing);
  add("toy");
  EXPECT_EQ(complete_with("toy").status, 200);
  generator->change_models([](auto& models) { std::swap(models.front(), models.back()); });
  EXPECT_EQ(complete_with("toy").status, 200);
}

TEST_F(ModelsTest, TokenizersAreMadeOnceAndOneThatFailsHarmsNoOther) {
  std::atomic<int> made{0};
  text_factory = [&made](const pool::ServedModel& model) -> Result<std::shared_ptr<const ServedText>> {
    ++made;
    if (model.id == "broken") return fail(ErrorCode::corrupt, "merge 7 makes nothing");
    return toy_text(model);
  };
  start();
  EXPECT_EQ(made, 2);
  add("broken");
  const auto response = complete_with("broken");
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(response.json()["error"]["code"], "model_failed");
  EXPECT_NE(response.json()["error"]["message"].get<std::string>().find("merge 7"), std::string::npos);
  EXPECT_EQ(response.headers.count("retry-after"), 0u);  // it stays as it is
  EXPECT_EQ(http(port, "GET", "/health").json()["models"][2]["state"], "failed");
  for (int i = 0; i < 5; ++i) {
    generator->set_model("toy", i % 2 == 0 ? ModelState::preparing : ModelState::ready);
    complete_with("broken");
    EXPECT_EQ(complete_with("org/other").status, 200);
  }
  EXPECT_EQ(made, 3);
}

TEST_F(ModelsTest, NumbersOutliveTheirModel) {
  start();
  const std::string line = R"(switchyard_completion_tokens_total{model="toy"} )";
  complete_with("toy");
  generator->change_models([](auto& models) { models.erase(models.begin()); });
  EXPECT_EQ(complete_with("toy").status, 404);
  EXPECT_NE(http(port, "GET", "/metrics").body.find(line + "1\n"), std::string::npos);
  add("toy");
  complete_with("toy");
  complete_with("never-heard-of");
  const std::string numbers = http(port, "GET", "/metrics").body;
  EXPECT_NE(numbers.find(line + "2\n"), std::string::npos);
  EXPECT_EQ(numbers.find("never-heard-of"), std::string::npos);
}

TEST_F(ModelsTest, ComeAndGoUnderLoad) {
  start();
  std::atomic<bool> stop{false};
  std::atomic<int> served{0}, told{0}, wrong{0};
  std::vector<std::thread> clients;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([&, i] {
      while (!stop) {
        const auto response =
            i == 0 ? http(port, "GET", "/v1/models") : complete_with(i == 1 ? "toy" : "some");
        (response.status == 200 ? served : response.status == 503 || response.status == 404 ? told : wrong)++;
      }
    });
  }
  for (int i = 0; i < 100; ++i) {
    add("some", ModelState::preparing);
    complete_with("some");
    generator->set_model("some", ModelState::ready);
    complete_with("some");
    generator->set_model("some", ModelState::removing);
    generator->change_models([](auto& models) { models.pop_back(); });
  }
  stop = true;
  for (auto& client : clients) client.join();
  EXPECT_GT(served, 0);
  EXPECT_GT(told, 0);
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace switchyard::gateway::testing
