// Another process with an engine (peer/peer_main.cc): started by fork and exec, spoken to in lines, killed at
// will.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <sstream>
#include <string>

#include "transfer/support.h"

namespace switchyard::testing {

class PeerProcess {
 public:
  PeerProcess(const std::string& fabric, std::size_t bytes) {
    int to_child[2], from_child[2];
    if (pipe2(to_child, O_CLOEXEC) != 0 || pipe2(from_child, O_CLOEXEC) != 0) std::abort();
    const std::string size = std::to_string(bytes);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(to_child[0], 0);
      dup2(from_child[1], 1);
      execl(SWITCHYARD_TRANSFER_PEER, "transfer_peer", fabric.c_str(), size.c_str(),
            static_cast<char*>(nullptr));
      _exit(127);
    }
    ::close(to_child[0]);
    ::close(from_child[1]);
    in_ = to_child[1];
    out_ = fdopen(from_child[0], "r");
    std::istringstream words(read_line());
    std::string address, key;
    words >> address >> key;
    auto parsed_address = PeerAddress::parse(from_hex(address));
    auto parsed_key = RegionKey::parse(from_hex(key));
    if (!parsed_address || !parsed_key) {
      ADD_FAILURE() << "the peer process did not start";
      std::abort();
    }
    address_ = *parsed_address;
    key_ = *parsed_key;
  }
  ~PeerProcess() {
    kill(SIGCONT);
    ::close(in_);
    if (alive_) end();
    fclose(out_);
  }
  PeerProcess(const PeerProcess&) = delete;
  PeerProcess& operator=(const PeerProcess&) = delete;

  const PeerAddress& address() const { return address_; }
  const RegionKey& key() const { return key_; }

  void say(const std::string& line) {
    const std::string whole = line + "\n";
    if (::write(in_, whole.data(), whole.size()) != static_cast<ssize_t>(whole.size()))
      ADD_FAILURE() << "peer is gone";
  }
  std::string ask(const std::string& line) {
    say(line);
    return read_line();
  }
  CounterId make_counter() {
    std::istringstream words(ask("counter"));
    CounterId id;
    words >> id.slot >> id.generation >> id.epoch;
    return id;
  }
  void kill(int signal) { ::kill(pid_, signal); }
  // Returns when every thread of it stands still.
  void stop() {
    kill(SIGSTOP);
    int status = 0;
    waitpid(pid_, &status, WUNTRACED);
  }
  void kill_dead() {
    kill(SIGKILL);
    end();
  }

 private:
  std::string read_line() {
    std::string line;
    for (int c; (c = fgetc(out_)) != EOF && c != '\n';) line.push_back(static_cast<char>(c));
    return line;
  }
  void end() {
    int status = 0;
    waitpid(pid_, &status, 0);
    alive_ = false;
  }

  pid_t pid_ = -1;
  bool alive_ = true;
  int in_ = -1;
  FILE* out_ = nullptr;
  PeerAddress address_;
  RegionKey key_;
};

inline std::string hex(const Side& side) {
  return to_hex(side.address().serialize()) + " " + to_hex(side.key().serialize());
}

}  // namespace switchyard::testing
