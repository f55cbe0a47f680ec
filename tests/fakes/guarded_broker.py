"""A real mosquitto with TLS, client certificates, passwords and an access list."""

import subprocess

from broker import Mosquitto
from fakes.mqtt_driver import STATUS, TOPIC
from fakes.pki import make_pem, put
from requirements import require_program

PASSWORD = "not-for-logs"
ACCESS_LIST = (
    f"user driver\ntopic read {TOPIC}\ntopic write from/us\ntopic write {STATUS}\nuser other\ntopic #\n"
)


class Site:
    """A broker that wants TLS 1.2 or newer, a client certificate, a password and has an access list; and the
    files of the driver that it lets in."""

    def __init__(self, directory, access_list=ACCESS_LIST, user="driver"):
        self.directory = directory
        self.user = user
        self.ca = make_pem(is_ca=True, name="site CA")
        for name in ("ca", "driver-ca"):
            put(directory / f"{name}.pem", self.ca[0])
        self.certify("broker", hosts=("localhost",))
        self.certify("driver")
        self.password = put(directory / "password", PASSWORD.encode() + b"\n")
        passwords = directory / "passwords"
        for options, name, password in ((("-c", "-b"), user, PASSWORD), (("-b",), "other", "x")):
            command = [require_program("mosquitto_passwd"), *options, str(passwords), name, password]
            subprocess.run(command, check=True)
        put(directory / "acl", access_list.encode())
        self.mosquitto = Mosquitto(
            directory,
            f"cafile {directory}/ca.pem\ncertfile {directory}/broker.pem\nkeyfile {directory}/broker.key\n"
            "require_certificate true\nallow_anonymous false\n"
            f"password_file {passwords}\nacl_file {directory}/acl\n",
        )

    def certify(self, name, *, ca=None, **how):
        """Make the files of a certificate, or make them anew."""
        certificate, key = make_pem(issuer=ca or self.ca, name=name, **how)
        put(self.directory / f"{name}.pem", certificate)
        put(self.directory / f"{name}.key", key)

    def listen_plainly_too(self, port):
        """Without TLS as well, but not without a password. Before it starts."""
        with self.mosquitto._config.open("a") as file:
            file.write(f"listener {port} 127.0.0.1\n")

    def change(self, old, new):
        """The broker ends, and starts with other settings."""
        self.mosquitto.kill()
        text = self.mosquitto._config.read_text()
        assert old in text
        self.mosquitto._config.write_text(text.replace(old, new))
        self.mosquitto.start()

    @property
    def access(self):
        """What the driver has to be told to get in."""
        return {
            "host": "localhost",
            "username": self.user,
            "password_file": self.password,
            "tls_enabled": True,
            "ca_cert": f"{self.directory}/driver-ca.pem",
            "client_cert": f"{self.directory}/driver.pem",
            "client_key": f"{self.directory}/driver.key",
        }
