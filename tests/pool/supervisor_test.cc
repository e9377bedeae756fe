#include "pool/supervisor.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>
#include <map>

namespace switchyard::pool {
namespace {

class SupervisorTest : public testing::Test {
 protected:
  Supervisor::Changed changed() {
    return [this](const Supervisor::Process& process, const std::string& state, const std::string& detail,
                  int pid, std::uint64_t restarts) {
      const std::lock_guard lock(mutex_);
      seen_[process.name] = {state, detail, pid, restarts};
      arrived_.notify_all();
    };
  }
  struct Seen {
    std::string state;
    std::string detail;
    int pid = 0;
    std::uint64_t restarts = 0;
  };
  Seen wait_for(const std::string& name, const std::function<bool(const Seen&)>& condition) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(arrived_.wait_for(lock, std::chrono::seconds(20), [&] { return condition(seen_[name]); }));
    return seen_[name];
  }

  std::mutex mutex_;
  std::condition_variable arrived_;
  std::map<std::string, Seen> seen_;
};

Supervisor::Process sleeper(const std::string& name) {
  return {.name = name, .role = Role::decode, .command = {"/bin/sleep", "1000"}};
}

TEST_F(SupervisorTest, StartsWhatDiesAgain) {
  Supervisor supervisor({sleeper("a"), sleeper("b")}, changed());
  const auto first = wait_for("a", [](const Seen& seen) { return seen.pid != 0; });
  const auto other = wait_for("b", [](const Seen& seen) { return seen.pid != 0; });
  kill(first.pid, SIGKILL);
  const auto second = wait_for("a", [&](const Seen& seen) { return seen.pid != 0 && seen.pid != first.pid; });
  EXPECT_EQ(second.restarts, 1u);
  EXPECT_NE(second.detail.find("signal 9"), std::string::npos) << second.detail;
  EXPECT_EQ(seen_["b"].pid, other.pid);
}

// At every start, and it stands neither in the arguments nor in the environment.
TEST_F(SupervisorTest, AProcessCanReadItsSecretAtEveryStart) {
  const std::string secret(Supervisor::kMaxSecretBytes, 'k');
  Supervisor supervisor({{.name = "a",
                          .role = Role::decode,
                          .command = {"/bin/sh", "-c",
                                      "test $(wc -c <&3) = 4096 && ! tr '\\0' '\\n' </proc/$$/environ | "
                                      "grep -q kkkk && exit 42"},
                          .secret = secret}},
                        changed());
  for (std::uint64_t starts : {1u, 2u}) {
    const auto seen = wait_for("a", [&](const Seen& now) { return now.restarts >= starts; });
    EXPECT_NE(seen.detail.find("status 42"), std::string::npos) << seen.detail;
  }
}

TEST_F(SupervisorTest, ReplacesOnRequestButOnlyTheProcessMeant) {
  Supervisor supervisor({sleeper("a")}, changed());
  const auto first = wait_for("a", [](const Seen& seen) { return seen.pid != 0; });
  supervisor.replace("a", first.pid + 1, "another process");
  supervisor.replace("a", first.pid, "it does not answer");
  const auto second = wait_for("a", [&](const Seen& seen) { return seen.pid != 0 && seen.pid != first.pid; });
  EXPECT_EQ(second.detail, "it does not answer");
  EXPECT_EQ(second.restarts, 1u);
}

TEST_F(SupervisorTest, SaysWhyAProgramEnds) {
  Supervisor supervisor({{.name = "a", .command = {"/bin/sh", "-c", "exit 3"}}}, changed());
  const auto ended = wait_for("a", [](const Seen& seen) { return seen.restarts >= 2; });
  EXPECT_EQ(ended.detail, "exited with status 3");
}

TEST_F(SupervisorTest, LeavesNothingRunning) {
  int pid = 0;
  {
    Supervisor supervisor({sleeper("a")}, changed());
    pid = wait_for("a", [](const Seen& seen) { return seen.pid != 0; }).pid;
  }
  EXPECT_EQ(kill(pid, 0), -1);
}

}  // namespace
}  // namespace switchyard::pool
